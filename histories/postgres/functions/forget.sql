-- Forgets a user's notes and sessions, but for those of which a turn runs.
-- GIVES   how many those are
CREATE OR REPLACE FUNCTION recollect_forget(p_user text)
RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    held bigint := 0;
    name text;
BEGIN
    DELETE FROM recollect_notes WHERE user_id = p_user;
    FOR name IN SELECT session_id FROM recollect_sessions WHERE user_id = p_user ORDER BY session_id LOOP
        IF recollect_delete_session(p_user, name, '') = 'held' THEN
            held := held + 1;
        END IF;
    END LOOP;
    RETURN held;
END $$;
