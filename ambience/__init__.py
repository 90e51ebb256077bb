"""What a program needs to use ambience: `ambience.client`."""
