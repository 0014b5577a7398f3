package httpapi

import (
	"net/http"
)

// ListProviders answers what one can sign in to.
func (a api) ListProviders(w http.ResponseWriter, r *http.Request) {
	a.json(w, r, http.StatusOK, ProviderList{Providers: convert(a.cfg.UseCases.Providers(), apiProvider)})
}

// ListCredentials answers the metadata of the user's credentials.
func (a api) ListCredentials(w http.ResponseWriter, r *http.Request) {
	list, err := a.cfg.UseCases.Credentials(r.Context(), who(r).user.ID)
	if err != nil {
		a.fail(w, r, err)
		return
	}
	a.json(w, r, http.StatusOK, CredentialList{Credentials: convert(list, apiCredential)})
}

// GetCredential answers the metadata of one credential.
func (a api) GetCredential(w http.ResponseWriter, r *http.Request, id ID) {
	if !a.checkID(w, r, id) {
		return
	}
	c, err := a.cfg.UseCases.Credential(r.Context(), who(r).user.ID, id)
	if err != nil {
		a.fail(w, r, err)
		return
	}
	a.json(w, r, http.StatusOK, apiCredential(c))
}

// DeleteCredential deletes the stored copy.
func (a api) DeleteCredential(w http.ResponseWriter, r *http.Request, id ID) {
	if !a.checkID(w, r, id) {
		return
	}
	if err := a.cfg.UseCases.DeleteCredential(r.Context(), who(r).user.ID, id); err != nil {
		a.fail(w, r, err)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// DeliverCredential hands a credential to the user's machine and waits for it.
func (a api) DeliverCredential(w http.ResponseWriter, r *http.Request, id ID) {
	if !a.checkID(w, r, id) {
		return
	}
	c, err := a.cfg.UseCases.Deliver(r.Context(), who(r).user.ID, id)
	if err != nil {
		a.fail(w, r, err)
		return
	}
	a.json(w, r, http.StatusOK, apiCredential(c))
}

// ListMachines answers the user's machines.
func (a api) ListMachines(w http.ResponseWriter, r *http.Request) {
	list, err := a.cfg.UseCases.Machines(r.Context(), who(r).user.ID)
	if err != nil {
		a.fail(w, r, err)
		return
	}
	a.json(w, r, http.StatusOK, MachineList{Machines: convert(list, apiMachine)})
}

// EnsureMachine makes and starts the user's CLI machine if need be.
func (a api) EnsureMachine(w http.ResponseWriter, r *http.Request) {
	vm, err := a.cfg.UseCases.EnsureMachine(r.Context(), who(r).user.ID)
	if err != nil {
		a.fail(w, r, err)
		return
	}
	a.json(w, r, http.StatusOK, apiMachine(vm))
}

// GetMachine answers one machine.
func (a api) GetMachine(w http.ResponseWriter, r *http.Request, id ID) {
	if !a.checkID(w, r, id) {
		return
	}
	vm, err := a.cfg.UseCases.Machine(r.Context(), who(r).user.ID, id)
	if err != nil {
		a.fail(w, r, err)
		return
	}
	a.json(w, r, http.StatusOK, apiMachine(vm))
}

// DestroyMachine destroys a machine.
func (a api) DestroyMachine(w http.ResponseWriter, r *http.Request, id ID) {
	if !a.checkID(w, r, id) {
		return
	}
	if err := a.cfg.UseCases.DestroyMachine(r.Context(), who(r).user.ID, id); err != nil {
		a.fail(w, r, err)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// CreateTerminalTicket makes a ticket for a terminal.
func (a api) CreateTerminalTicket(w http.ResponseWriter, r *http.Request, id ID) {
	if !a.checkID(w, r, id) {
		return
	}
	secret, expires, err := a.cfg.UseCases.TerminalTicket(r.Context(), who(r).user.ID, id)
	if err != nil {
		a.fail(w, r, err)
		return
	}
	a.json(w, r, http.StatusCreated, Ticket{Ticket: secret, ExpiresAt: expires.UTC()})
}
