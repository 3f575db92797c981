"""How chains show themselves in LangServe's playgrounds: one file of input types for each chain, and their sessions.

The playgrounds know no sessions: they are served under `/<chain>/c/<config_hash>/`, with a session in the hash. The
default one sends it with each turn; of the chat one, the address tells it.
"""
