-- What each round cost, in all and per case that it fixed.
SELECT * FROM round_costs ORDER BY round
