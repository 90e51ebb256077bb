"""What starts and stops with a service: the driver, the data folder, Ray."""
