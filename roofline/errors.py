"""Every exception a user can meet. Outside input raises one of these; impossible states are `assert`.

HeadroomError
├── InputError           a value given by the user is wrong: a flag, a scenario field, a request
│   ├── ModelError       a model is missing, of an unknown architecture, or inconsistent
│   ├── TraceError       a measured or synthetic trace cannot be used
│   ├── ProfileError     a fitted profile cannot be used for what is asked
│   └── CapacityError    a request or model does not fit the memory it is given
└── InfeasibleError      the question is well put, and the answer is that nothing meets it

Each message says the value, the place and the remedy in one sentence; the command line prints it and exits with 2.
"""


class HeadroomError(Exception):
    """Base of everything this project raises on purpose."""


class InputError(HeadroomError):
    """A value given by the user is wrong."""


class ModelError(InputError):
    """A model is missing, of an unknown architecture, or inconsistent."""


class TraceError(InputError):
    """A measured or synthetic trace cannot be used."""


class ProfileError(InputError):
    """A fitted profile cannot be used for what is asked of it."""


class CapacityError(InputError):
    """A request or a model does not fit the memory it is given."""


class InfeasibleError(HeadroomError):
    """Nothing meets what is asked; the message names the nearest change that would."""
