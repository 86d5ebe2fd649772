-- Cases that each round's candidate fixed and broke against its incumbent, by capability.
WITH changes AS (
    SELECT round, 'fixed' AS change, unnest(from_json(result->'$.fixed', '["VARCHAR"]')) AS case_id FROM rounds
    UNION ALL
    SELECT round, 'broken', unnest(from_json(result->'$.broken', '["VARCHAR"]')) FROM rounds
)
SELECT changes.round, coalesce(capability, 'never failed before') AS capability,
       count(*) FILTER (change = 'fixed') AS fixed, count(*) FILTER (change = 'broken') AS broken
FROM changes LEFT JOIN cases USING (case_id) GROUP BY ALL ORDER BY changes.round, capability
