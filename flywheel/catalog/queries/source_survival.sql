-- Share of each source's rows that reaches training, and the filter that costs it most.
WITH sources AS (SELECT sample_id, any_value(source) AS source FROM samples GROUP BY sample_id)
SELECT source, count(*) AS rows, count(*) FILTER (outcome = 'admitted') AS admitted,
       round(count(*) FILTER (outcome = 'admitted') / count(*), 4) AS survival, mode(filter) AS costliest_filter
FROM decisions JOIN sources USING (sample_id) GROUP BY source ORDER BY survival, source
