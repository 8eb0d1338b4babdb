"""Ways to have workers run elsewhere; each module is a `tc_sweeps.sweep.cluster.Executor`."""
