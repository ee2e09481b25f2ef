"""leadlex: the Python SDK for Lexi, the AI assistant inside the LeadLex CRM for law firms."""
