"""What ends the script with a message instead of a traceback."""


class Problem(Exception):
    pass
