// The line to the server: what was clicked goes out in order and counts once, what changed comes in.

const AGAIN_MS = 1000;
const AT_ONCE = 200; // actions in a request

export async function getJson(path) {
  const answer = await fetch(path, { headers: { accept: 'application/json' } });
  if (answer.ok) return answer.json();
  const content = await answer.json().catch(() => ({}));
  throw new Error(content.problem ?? (await sayStatus(answer.status)));
}

/** Ask for something to be done that is no action on labels; an error has the server's sentence. */
export async function postJson(path, content = {}) {
  const answer = await fetch(path, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify(content),
  });
  const json = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Error(json.problem ?? (await sayStatus(answer.status)));
  return json;
}

async function sayStatus(status) {
  if (status === 403) {
    return 'The server no longer knows this window: open the address that it printed last, here. ' +
      'What you clicked is kept.';
  }
  return `The server answered with status ${status}.`;
}

/**
 * Calls listener.pushed(message), .learned(state), .answered() when pending changed, .refused(why),
 * .connected() on each new line, and .status(text | null) with what is wrong with the line.
 */
export class Connection {
  constructor(listener) {
    this.listener = listener;
    this.session = null; // the labels that all of this is for
    this.isSending = false;
    this.sent = new Set(); // ids of all that was done in this window
    this.pending = []; // actions in order that no push has confirmed
    this.answered = new Set(); // ids of those that the server has, whose push is on its way
  }

  /** Send to this session from now on; false where the server has come to serve other labels. */
  belongsTo(session) {
    if (this.session !== null) return this.session === session;
    this.session = session;
    try {
      this.pending = JSON.parse(sessionStorage.getItem(`labelling ${session}`)) ?? [];
    } catch {
      // of another version: there is nothing to send
    }
    this.pump();
    return true;
  }

  connect() {
    const source = new EventSource('/pushes');
    source.onmessage = (event) => {
      const message = JSON.parse(event.data);
      if ('problem' in message) this.diskProblem = message.problem;
      if ('hello' in message) {
        this.answered.clear(); // pushes may have been missed: ask again for what is pending
        this.say(null);
        this.listener.connected();
        this.pump();
        return;
      }
      if ('problem' in message) this.say(null);
      if (message.learning) this.listener.learned(message.learning);
      if (message.event) {
        this.drop(message.event.id);
        this.listener.pushed(message);
      }
    };
    source.onerror = () => {
      source.close();
      this.say('The server does not answer. What you click is kept here and sent when it is back.');
      setTimeout(() => this.connect(), AGAIN_MS);
    };
  }

  say(text) {
    this.listener.status(text ?? this.diskProblem ?? null);
  }

  send(action) {
    this.sent.add(action.id);
    this.pending.push(action);
    this.keep();
    this.pump();
  }

  drop(id) {
    this.pending = this.pending.filter((action) => action.id !== id);
    this.answered.delete(id);
    this.keep();
  }

  keep() {
    try {
      const key = `labelling ${this.session}`;
      if (this.pending.length) sessionStorage.setItem(key, JSON.stringify(this.pending));
      else sessionStorage.removeItem(key);
    } catch {
      // no storage: the window itself still has them
    }
    this.listener.answered();
  }

  async pump() {
    const actions = this.pending.filter((a) => !this.answered.has(a.id)).slice(0, AT_ONCE);
    if (this.isSending || !actions.length || this.session === null) return;
    this.isSending = true;
    try {
      const answer = await fetch('/actions', {
        method: 'POST',
        headers: { 'content-type': 'application/json' },
        body: JSON.stringify({ session: this.session, actions }),
      });
      const content = await answer.json().catch(() => ({}));
      if (!answer.ok) throw new Error(content.problem ?? (await sayStatus(answer.status)));
      let missed = false;
      for (const { id, refused, known } of content.answers) {
        if (refused || known) this.drop(id);
        else if (this.pending.some((action) => action.id === id)) this.answered.add(id);
        if (refused) this.listener.refused(refused);
        missed ||= known;
      }
      this.isSending = false;
      this.say(null);
      if (missed) this.listener.connected();
      this.pump();
    } catch (error) {
      this.isSending = false;
      if (!(error instanceof TypeError)) this.say(error.message); // TypeError: no line, as above
      setTimeout(() => this.pump(), AGAIN_MS);
    }
  }
}
