package guestapi

// View is what a person's own browser told about itself, in the form that
// Configure wants it. Each field is checked and limited by whoever fills it;
// the zero value of a field means that the default is to be used.
type View struct {
	Locale    string // such as "sv_SE.UTF-8"
	Languages string // such as "sv-SE,sv,en"
	TimeZone  string // IANA name
	Width     int    // pixels, 320 to 3840
	Height    int    // pixels, 240 to 2160
}
