/** Config sets. They are listed and dropped by proposals (trust.ts), as everything that is signed elsewhere. */
import { configList, recipients } from '../config-set.ts';
import { groupName } from '../ids.ts';
import { oneThing, reading, type Route } from './route.ts';

export const configRoutes = {
  configList: {
    method: 'GET',
    path: '/api/v1/configs',
    plane: 'operator',
    permission: 'view',
    summary: 'Config sets by scope, the newest version first. Never a value of one.',
    ok: configList,
    errors: reading,
  },
  groupRecipients: {
    method: 'GET',
    path: '/api/v1/groups/:group/recipients',
    plane: 'operator',
    permission: 'view',
    summary: 'The signed statements of the hosts of a group, for sealing secrets to their keys.',
    params: { group: groupName },
    ok: recipients,
    errors: oneThing,
  },
} as const satisfies Record<string, Route>;
