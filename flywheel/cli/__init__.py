"""The verbs of the `flywheel` command, one module per group; each verb is one call into a package."""
