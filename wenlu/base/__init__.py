"""What every floor may use: errors, configuration, files, devices, logs, pages."""
