-- The turns of an import; their words come into the index with the first search.
COPY recollect_turns (user_id, session_id, seq, turn_id, status, chain, kind, started_at, ended_at,
    input, output, usage, tokens, tokens_before, details, feedback, parent, hidden) FROM STDIN
