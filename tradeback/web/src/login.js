// The login form, and whether anybody is logged in.
//
// The session is a cookie that scripts cannot read. So that a first visit does not ask the server for what it cannot
// have, this browser remembers that somebody logged in here; the server alone decides whether that still holds.

import * as rest from "./rest.js";

const KEY = "tradeback.was-logged-in";

function remember(yes) {
  try {
    if (yes) localStorage.setItem(KEY, "yes");
    else localStorage.removeItem(KEY);
  } catch {
    // A browser that keeps nothing asks for the login each time.
  }
}

function remembered() {
  try {
    return localStorage.getItem(KEY) !== null;
  } catch {
    return false;
  }
}

export class Login {
  #page = document.getElementById("login");
  #form = document.getElementById("login-form");
  #error = document.getElementById("login-error");
  #reason = document.getElementById("login-reason");
  #button = document.getElementById("login-button");

  /** `onLogin(user)` is called after each login with what the session says of the user. */
  constructor({ onLogin }) {
    this.onLogin = onLogin;
    this.#form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#submit();
    });
  }

  /** Go on with the session of before, or ask for a login. */
  async start() {
    if (!remembered()) {
      this.ask();
      return;
    }
    try {
      this.onLogin((await rest.session()).user);
    } catch (error) {
      if (error.status === 401) remember(false);
      this.ask(error.status === 401 ? "Your session has ended. Log in again." : error.message);
    }
  }

  /** Show the form, with the reason. */
  ask(reason = "Log in to see your watchlist.") {
    this.#reason.textContent = reason;
    this.#page.hidden = false;
    this.#form.elements.username.focus();
  }

  async logout() {
    remember(false);
    await rest.logout();
  }

  /** The session is over. */
  forget() {
    remember(false);
  }

  /** A browser drops a Secure cookie that comes by plain HTTP, and tells nobody. */
  async #checkCookie() {
    try {
      await rest.session();
    } catch (error) {
      if (error.status !== 401) throw error;
      throw new Error(
        "The login is right, but this browser did not keep it: open the page by HTTPS, allow its cookies, or " +
          "start the server with SESSION_COOKIE_SECURE=false.",
        { cause: error },
      );
    }
  }

  async #submit() {
    const { username, password } = this.#form.elements;
    const empty = [username, password].find((input) => input.value === "");
    if (empty) {
      this.#error.textContent = "Give a username and a password.";
      empty.focus();
      return;
    }
    this.#error.textContent = "";
    this.#button.disabled = true;
    try {
      const { user } = await rest.login(username.value, password.value);
      await this.#checkCookie();
      remember(true);
      this.#page.hidden = true;
      password.value = "";
      this.onLogin(user);
    } catch (error) {
      const after = error.retryAfter ? ` Try again in ${error.retryAfter} s.` : "";
      this.#error.textContent = `${error.message}${after}`;
      password.select();
    } finally {
      this.#button.disabled = false;
    }
  }
}
