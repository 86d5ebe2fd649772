-- How many rows each filter dropped in each snapshot, oldest first: what a new policy or new data changed.
WITH dropped AS (
    SELECT snapshot, filter, count(*) AS rows FROM all_decisions WHERE outcome = 'dropped' GROUP BY ALL
), counted AS (
    SELECT s."at", s.snapshot, s.policy, f.filter, coalesce(d.rows, 0) AS rows
    FROM snapshots s CROSS JOIN (SELECT DISTINCT filter FROM dropped) f
    LEFT JOIN dropped d ON d.snapshot = s.snapshot AND d.filter = f.filter
), changed AS (
    SELECT *, rows - lag(rows, 1, 0) OVER (PARTITION BY filter ORDER BY "at", snapshot) AS change FROM counted
)
SELECT * FROM changed WHERE rows > 0 OR change <> 0 ORDER BY "at", rows DESC, filter
