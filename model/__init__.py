"""Networks: bins, training, weights and the engines that run them."""
