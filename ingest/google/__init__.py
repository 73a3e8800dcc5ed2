"""Google Cloud clients: credentials, BigQuery, and errors in our own terms."""
