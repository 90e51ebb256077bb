"""What starts and stops with a service: the supervisor, the driver, the data folder, Ray."""
