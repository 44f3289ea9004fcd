"""The web page: one photo, many photos, this session's history. A process of its own that speaks to the service
through `detector.client` alone; `page.build(client)` is the whole of it.
"""
