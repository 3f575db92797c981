"""What `admin.py` does. A command is a function from its arguments and the settings to an exit status.

Each module adds the parsers of its own commands. What another program may want to read is the last line on standard
output; hints go to standard error.
"""
