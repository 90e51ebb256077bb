"""The list of images, `GET /v1/images`."""
