"""What every room stands on: errors, files, settings, jobs, registries, the runtime."""
