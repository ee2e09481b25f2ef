"""What people build upon leadlex: web endpoints, pages that read them, and tools of agents."""
