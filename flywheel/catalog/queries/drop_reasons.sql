-- Why curation dropped or quarantined rows, most frequent first, with an example.
SELECT outcome, reason, count(*) AS rows, arg_min(source_uri, source_uri) AS example FROM (
    SELECT 'dropped' AS outcome, filter AS reason, source_uri FROM decisions WHERE outcome = 'dropped'
    UNION ALL
    SELECT 'quarantined', split_part(reason, ':', 1), source_uri FROM quarantine
) GROUP BY ALL ORDER BY rows DESC, reason
