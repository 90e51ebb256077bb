"""What `local` can describe a picture's keypoints by: one file each."""
