-- Makes a session for an import. GIVES a row unless the name is taken.
INSERT INTO recollect_sessions
    (user_id, session_id, title, title_words, chain, created_at, updated_at, turns, tokens, last_seq, head, token)
VALUES (%(user)s, %(session)s, %(title)s, array_to_tsvector(%(title_words)s), %(chain)s, %(created_at)s,
    %(updated_at)s, %(turns)s, %(tokens)s, %(last_seq)s, %(head)s, '')
ON CONFLICT DO NOTHING RETURNING session_id
