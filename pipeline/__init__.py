"""Media and colour: everything between a file and a file; knows no network, no Ray, no command line."""
