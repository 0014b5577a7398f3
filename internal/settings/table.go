package settings

// entries is the table of all settings.
func (s *Settings) entries() []*setting {
	c := &s.Server
	return []*setting{
		{flag: "listen", usage: "address to listen on, `host:port`", value: text(&c.Listen)},
		{flag: "state", usage: "`directory` of the database, the root key and the homes", value: path(&c.StateDir)},
		{flag: "key-file", usage: "`file` of the vault's root key (default root.key in the state directory)", value: path(&c.KeyFile)},
		{flag: "tls-cert", usage: "`file` of the certificate (PEM): serve HTTPS; with tls-key", value: path(&c.TLSCert)},
		{flag: "tls-key", usage: "`file` of the certificate's private key (PEM)", value: path(&c.TLSKey)},
		{flag: "acme-domain", usage: "get a certificate for this `name` by ACME (Let's Encrypt)", value: text(&c.ACMEDomain)},
		{flag: "behind-proxy", usage: "a reverse proxy of yours in front speaks HTTPS", value: boolean(&c.BehindProxy)},
		{flag: "hosts", usage: "`names` under which browsers reach the service, beside loopback's", value: list(&c.Hosts)},
		{flag: "upstreams", group: "egress", secret: true, usage: "the way out of the machines: \"direct\" or an HTTP proxy's URL", value: list(&c.Upstreams)},
		{flag: "upstreams-file", group: "egress", usage: "`file` with the upstream's URL (default: straight to the internet)", value: path(&s.upstreamsFile)},
		{flag: "ca-files", usage: "`files` with further CA certificates (PEM) that the machines trust", value: list(&c.CAFiles)},
		{flag: "providers-dir", usage: "`directory` with further provider files", value: path(&c.ProvidersDir)},
		{flag: "image-dir", usage: "`directory` of the golden images", value: path(&c.ImageDir)},
		{flag: "guest", usage: "the anteroom-guest `program`", value: path(&c.Guest)},
		{flag: "runsc", usage: "gVisor's runsc `program`", value: path(&c.Runsc)},
		{flag: "cold", usage: "use no snapshot: every machine starts cold", value: boolean(&c.Cold)},
		{flag: "locale", usage: "machines' `locale`, unless a person's browser says another", value: text(&c.Locale)},
		{flag: "languages", usage: "`languages` in which Chromium asks for pages", value: text(&c.Languages)},
		{flag: "session-time", usage: "`time` that a person has to sign in", value: duration(&c.SessionTime)},
		{flag: "machine-memory", usage: "memory limit of one machine, a `size`", value: size(&c.MachineMemory)},
		{flag: "machine-cpus", usage: "CPU limit of one machine, a `number`", value: number(&c.MachineCPUs)},
		{flag: "min-free-memory", usage: "`size` of the memory that must be free to start a machine", value: size(&c.MinFreeMemory)},
		{flag: "starts-at-once", usage: "`number` of machines that may be starting at a time", value: integer(&c.StartsAtOnce)},
		{flag: "debug-machines", usage: "keep gVisor's debug logs (they are large)", value: boolean(&c.DebugMachines)},
		{flag: "metrics-public", usage: "answer /metrics without a token", value: boolean(&c.MetricsPublic)},
		{flag: "user", none: true, usage: "`name` of the user who gets a sign-in link at the start (empty: nobody)", value: text(&c.User)},
		{flag: "log-format", usage: "`format` of the log on standard error: text or json", value: choice(&s.LogFormat, "text", "json")},
		{flag: "log-level", usage: "least `level` that is logged: debug, info, warn or error", value: choice(&s.LogLevel, "debug", "info", "warn", "error")},
	}
}
