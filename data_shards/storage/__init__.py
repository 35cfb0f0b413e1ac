"""Where files lie: a folder or a bucket, and the cache between a bucket and a reader."""
