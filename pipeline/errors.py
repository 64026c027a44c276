"""The exception tree. Every message is one line: the file, what is wrong, what to do.

ReelcolorError              exit 1; the command line prints the message and nothing else
├── InputError              the source is at fault: unreadable, empty, damaged
│   └── UnsupportedError    the source is sound, but the chosen output cannot hold it
├── StorageError            reading or writing failed: permission, network
│   ├── UnreadableError     what there is gives no data: no permission, a bad sector
│   └── NoRoomError         a disk is full, or is about to be
├── EngineError             the model or the engine that runs it
│   └── OutOfMemoryError    a batch did not fit
├── RecipeError             an option or a recipe key makes no sense
└── VerificationError       what was written is not what was promised
"""


class ReelcolorError(Exception):
    """Base of all errors that are the user's to see; `kind` is the class shown by status and report."""

    kind = "internal"


class InputError(ReelcolorError):
    """The source is at fault."""

    kind = "input"


class UnsupportedError(InputError):
    """The source is sound, but the chosen codec or container cannot hold it."""


class StorageError(ReelcolorError):
    """Reading or writing failed for a reason outside the file's content."""

    kind = "storage"


class UnreadableError(StorageError):
    """A local file is there, but may not be read, or reading from it fails."""


class NoRoomError(StorageError):
    """A disk is full, or has less room than is about to be needed."""


class EngineError(ReelcolorError):
    """The model, or the engine that runs it."""

    kind = "engine"


class OutOfMemoryError(EngineError):
    """A batch did not fit in the device's memory."""

    kind = "memory"


class RecipeError(ReelcolorError):
    """An option or a recipe key makes no sense."""

    kind = "recipe"


class VerificationError(ReelcolorError):
    """What was written is not what was promised."""

    kind = "verification"
