"""The benchmark: Recollect beside its peers, in one interleaved run. `python -m bench --help`.

Only ratios within one run are compared with anything: seconds are the machine's, ratios are the program's.
"""
