-- How many rows each filter dropped in each snapshot, oldest first: what a new policy or new data changed.
SELECT s."at", s.snapshot, s.policy, d.filter, count(*) AS rows,
       count(*) - coalesce(lag(count(*)) OVER (PARTITION BY d.filter ORDER BY s."at"), 0) AS change
FROM all_decisions d JOIN snapshots s USING (snapshot) WHERE d.outcome = 'dropped'
GROUP BY ALL ORDER BY s."at", rows DESC, d.filter
