"""What `litsexp check` looks for in a folder of CT cases."""
