-- Share of each source's rows that reaches training, and the filter that costs it most.
SELECT source, count(*) AS rows, count(*) FILTER (outcome = 'admitted') AS admitted,
       round(count(*) FILTER (outcome = 'admitted') / count(*), 4) AS survival, mode(filter) AS costliest_filter
FROM decisions JOIN samples USING (sample_id, source_uri) GROUP BY source ORDER BY survival, source
