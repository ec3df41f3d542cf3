"""The embedded `aws` provider: the resource types that the components use, over boto3, against a loopback endpoint only."""
