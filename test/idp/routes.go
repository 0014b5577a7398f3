package idp

import "net/http"

// routes fills the table of hosts and paths. A path that no route knows is a
// 404, as most of the providers' further paths may be.
func (s *Server) routes() {
	s.claudeRoutes()
	s.codexRoutes()
	s.geminiRoutes()
	s.mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, http.StatusNotFound, map[string]string{"error": "not_found"})
	})
}
