-- How many rows each filter dropped in each snapshot, oldest first: what a new policy or new data changed.
WITH dropped AS (
    SELECT s."at", s.snapshot, s.policy, d.filter, count(*) AS rows
    FROM all_decisions d JOIN snapshots s USING (snapshot) WHERE d.outcome = 'dropped' GROUP BY ALL
)
SELECT *, rows - coalesce(lag(rows) OVER (PARTITION BY filter ORDER BY "at"), 0) AS change
FROM dropped ORDER BY "at", rows DESC, filter
