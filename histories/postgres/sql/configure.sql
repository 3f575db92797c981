-- Settings of each connection. TAKES (in their order) the limit of a statement, and of an idle transaction.
-- Whoever switched synchronous_commit off did not mean what was acknowledged to be lost: it is on for us.
SELECT set_config('statement_timeout', %s, false),
       set_config('idle_in_transaction_session_timeout', %s, false),
       set_config('default_transaction_isolation', 'read committed', false),
       set_config('synchronous_commit',
           CASE WHEN current_setting('synchronous_commit') = 'off' THEN 'on'
           ELSE current_setting('synchronous_commit') END, false),
       set_config('timezone', 'UTC', false),
       set_config('jit', 'off', false)
