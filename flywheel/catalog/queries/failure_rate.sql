-- Failure rate by capability and round, of the candidate's pictures of held-out prompts.
WITH pictures AS (
    SELECT round, capability, prompt_id, image, bool_and(passed) AS passed
    FROM signals WHERE kind = 'evaluation' AND arm = 'candidate' AND passed IS NOT NULL
    GROUP BY ALL
),
judged AS (
    SELECT round, capability, prompt_id, count(*) AS pictures, avg((NOT passed)::INT) AS failing
    FROM pictures GROUP BY ALL
)
SELECT capability, round, count(*) AS prompts, sum(pictures)::BIGINT AS pictures,
       count(*) FILTER (failing >= 0.5) AS failures, round(avg(failing), 4) AS failure_rate
FROM judged GROUP BY ALL ORDER BY capability, round
