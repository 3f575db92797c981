-- GIVES whether the attempt's turn is listened to on any server.
SELECT EXISTS (
    SELECT FROM recollect_readers r
    WHERE r.user_id = %(user)s AND r.session_id = %(session)s AND r.token = %(token)s
    AND r.heard_until > clock_timestamp())
