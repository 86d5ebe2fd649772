-- Failure rate by capability and round, of the candidate on held-out prompts.
WITH judged AS (
    SELECT round, capability, prompt_id, bool_and(passed) AS passed
    FROM signals WHERE kind = 'evaluation' AND arm = 'candidate' AND passed IS NOT NULL
    GROUP BY ALL
)
SELECT capability, round, count(*) AS prompts, count(*) FILTER (NOT passed) AS failures,
       round(count(*) FILTER (NOT passed) / count(*), 4) AS failure_rate
FROM judged GROUP BY ALL ORDER BY capability, round
