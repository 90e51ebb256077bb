"""Keypoint descriptors for the extractor `local`, one file each, and the detection of keypoints."""
