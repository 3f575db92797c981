"""The file store under a scheduler that decides what goes next: every interleaving from a seed, and again from it.

Event loop, threads, clock and disk are simulated, in one real thread; processes are stores of their own on one folder.
At each lock, write, sync, read and wait the seed decides which thread goes on, or whether a process dies, stops for a
while, or its disk fails. After each schedule nobody waits, and what was acknowledged is on the record, once, in order.
"""
