// What the page says above the micrograph and above the strip.

export const HINTS = {
  pick: 'Click: add or remove a particle; drag: move it; Shift-click: no particle.',
  junk: 'Paint over carbon, ice and aggregates: nothing is learned or picked there.',
  erase: 'Paint over junk to take it away.',
};

const $ = (id) => document.getElementById(id);
let said = null; // for some seconds
let trouble = null; // with the line to the server, or with its disk
let reader = null; // who has the labels, where they can only be looked at here
let saying = null;

/** Say something for so long. */
export function say(text, ms) {
  clearTimeout(saying);
  said = text;
  saying = setTimeout(() => { said = null; show(); }, ms);
  show();
}

/** Say what is wrong until it is right again: null. */
export function sayTrouble(text) {
  trouble = text;
  show();
}

export function sayReadOnly(who) {
  reader = who;
  show();
}

function show() {
  const readOnly = reader &&
    `Read-only: the labels are in use by ${reader}. What is done there shows here.`;
  const text = said ?? trouble ?? readOnly;
  $('banner').hidden = !text;
  $('banner').textContent = text ?? '';
}

/** Say how far all micrographs are. */
export function sayProgress(rows) {
  const count = (state) => rows.filter((row) => row.state === state).length;
  const picks = rows.reduce((sum, row) => sum + row.picks, 0);
  const parts = [`${rows.length} micrographs`, `${picks} particles`];
  for (const state of ['complete', 'in part', 'left out']) {
    if (count(state)) parts.push(`${count(state)} ${state}`);
  }
  $('progress').textContent = parts.join(' · ');
}

/** Say what the open micrograph has. */
export function sayLabels({ labels, state, particles, negatives }) {
  $('state').textContent = state;
  $('state').dataset.state = state;
  $('counts').textContent = `${particles} particle${particles === 1 ? '' : 's'}`;
  $('n-particles').textContent = particles;
  $('n-negatives').textContent = negatives;
  $('complete').setAttribute('aria-pressed', String(labels.complete));
  $('leave-out').setAttribute('aria-pressed', String(labels.left_out));
}
