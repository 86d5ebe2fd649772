-- Cases by capability, remedy track and status: what is still to be done.
SELECT capability, track, status, count(*) AS cases, min(round) AS oldest_round
FROM cases GROUP BY ALL ORDER BY cases DESC, capability, track, status
