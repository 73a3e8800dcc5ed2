"""The dashboard: Streamlit pages that show answers of the API."""
