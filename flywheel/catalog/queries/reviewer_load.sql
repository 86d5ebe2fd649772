-- Reviews per reviewer: decided, accepted, still claimed, and the hours over which they were decided.
WITH latest AS (
    SELECT item, slot, arg_max(kind, version) AS kind, arg_max(reviewer, version) AS reviewer,
           arg_max("at", version) AS decided
    FROM reviews WHERE slot IS NOT NULL GROUP BY ALL
)
SELECT reviewer, count(*) FILTER (kind IN ('accepted', 'rejected')) AS decided,
       count(*) FILTER (kind = 'accepted') AS accepted, count(*) FILTER (kind = 'claimed') AS claimed,
       round(date_diff('second', min(decided), max(decided)) / 3600, 2) AS hours
FROM latest GROUP BY reviewer ORDER BY decided DESC, reviewer
