"""The verbs of the `flywheel` command, a module per user; each verb is one call into a package."""
