"""What every room may use and what uses no room: errors, locations, environment, hashing."""
