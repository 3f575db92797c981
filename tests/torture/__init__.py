"""The torture run: `make torture`, or `python -m tests.torture --minutes 10`.

Clients talk to several servers, of several workers each, on one data folder. Meanwhile workers and whole servers are
killed with kill -9 and paused, models fail and break off, and clients leave. With `--store redis` or `--store postgres`
histories are in a server of the run's own, which is killed, started again and paused as well. In the end every turn
that a client was told of is looked for on the record: none may be missing, torn, out of order, or in somebody else's
session.

    world.py     the servers and the model, and what is done to them
    clients.py   who talks, and what they were told
    changers.py  who renames, forks, searches, rewinds and deletes meanwhile
    checker.py   what was told, held against the record

    coincidences.py   instead, all that may be done to a session, two and three things at once (`--coincidences 1000`)
    bystander.py      instead, how long others' turns take while one user does all it can (`--bystander 60`)
"""
